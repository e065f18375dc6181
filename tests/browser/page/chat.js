// A chat client written by hand from the wire contract alone: it shares no code with any client of the platform.
//
// It shows entities as they are told, from the socket and from the timeline. Everything that a frame told becomes
// an entry of `chat.events`; the tests look there and at the page. It never reconnects by itself.

class Chat {
  constructor(baseUrl, convId) {
    Object.assign(this, { baseUrl, convId });
    this.entities = new Map();
    this.events = [];
    this.streams = new Set();
    this.failed = null;
  }

  /** The socket first, then the timeline: nothing that is said in between is missed. */
  async open() {
    const url = `${this.baseUrl.replace(/^http/, "ws")}/ws?conv_id=${encodeURIComponent(this.convId)}`;
    this.socket = new WebSocket(url);
    this.socket.onmessage = (message) => this.frame(JSON.parse(message.data));
    await new Promise((resolve) => {
      this.socket.onopen = () => resolve(this.status("open"));
      this.socket.onclose = (close) => resolve(this.status(`closed ${close.code}`));
    });
    const answer = await this.request("GET", `/api/timeline?conv_id=${encodeURIComponent(this.convId)}`);
    if (answer.status !== 200) return answer;
    const snapshot = JSON.parse(answer.body);
    for (const entity of snapshot.entities) this.upsert(entity, Number(snapshot.version));
    return { status: 200, version: Number(snapshot.version), entities: snapshot.entities.length };
  }

  async say(prompt) {
    return this.request("POST", "/chat", { prompt, conv_id: this.convId });
  }

  async request(method, path, body) {
    try {
      const answer = await fetch(this.baseUrl + path, {
        method,
        headers: body === undefined ? {} : { "Content-Type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      const code = answer.headers.get("x-error-code");
      return { status: answer.status, code, body: await answer.text() };
    } catch (error) {
      return { failed: error.name };
    }
  }

  frame({ sem, event }) {
    if (sem !== true) throw new Error("not a frame");
    this.events.push(event);
    if (event.type === "timeline.upsert") this.upsert(event.data.entity, Number(event.data.version));
    if (event.type === "llm.start") this.streams.add(event.id);
    if (event.type === "llm.final") this.streams.delete(event.id);
    if (event.type === "session.error") {
      this.failed = { ...event.data, streams: [...this.streams] };
      document.querySelector("#error").textContent = `${event.data.code}: ${event.data.message}`;
    }
  }

  upsert(entity, version) {
    const known = this.entities.get(entity.id);
    if (known !== undefined && known.version > version) return;
    this.entities.set(entity.id, { ...entity, version, props: { ...known?.props, ...entity.props } });
    this.draw();
  }

  draw() {
    const lines = [...this.entities.values()].map(({ id, kind, props }) => {
      const line = document.createElement("li");
      line.dataset.id = id;
      line.dataset.kind = kind;
      line.dataset.role = props.role ?? "";
      line.dataset.streaming = String(props.streaming === true);
      line.textContent = kind === "error" ? `${props.code}: ${props.message}` : (props.content ?? "");
      return line;
    });
    document.querySelector("#transcript").replaceChildren(...lines);
  }

  status(words) {
    document.querySelector("#status").textContent = words;
    return words;
  }
}

window.openChat = async (baseUrl, convId) => {
  window.chat = new Chat(baseUrl, convId);
  return window.chat.open();
};
