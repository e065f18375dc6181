// A client written by hand from the wire contract alone: it shares no code with any client of the platform.
//
// Everything that it sees becomes an entry of `call.events`, in order, with the leg (one peer connection) that
// it belongs to; the tests look there. It decides nothing: it does not reconnect, and it never closes by itself.

const RUNNER = "voice-agent-server";
const POLL_MS = { least: 250, most: 5000 };
const LOUDNESS_EVERY_MS = 20;

/** Whether `value` has everything that `pattern` has. */
function matches(value, pattern) {
  if (pattern === null || typeof pattern !== "object") return value === pattern;
  return (
    value !== null &&
    typeof value === "object" &&
    Object.entries(pattern).every(([key, part]) => matches(value[key], part))
  );
}

class Call {
  /** `start`: the body of POST /v1/sessions. `hello`: the customer context of session_hello, or null. */
  constructor({ baseUrl, key, start, hello = null, microphone = false }) {
    Object.assign(this, { baseUrl, key, start, hello, microphone });
    this.events = [];
    this.loudness = [];
    this.peerId = `client-${crypto.randomUUID()}`;
    this.credentials = null;
    this.token = null;
    this.socket = null;
    this.leg = 0;
    this.peers = [];
    this.channels = {};
    this.signals = Promise.resolve();
  }

  note(kind, detail = {}) {
    this.events.push({ kind, at: performance.now(), ...detail });
  }

  /** The first event that has everything that `pattern` has, or undefined. */
  find(pattern) {
    return this.events.find((event) => matches(event, pattern));
  }

  async request(method, path, body) {
    const answer = await fetch(this.baseUrl + path, {
      method,
      headers: { Authorization: `Bearer ${this.key}`, "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    return { status: answer.status, body: await answer.json() };
  }

  /** POST, then poll until the session is ready or failed. */
  async provision() {
    this.note("starting");
    const started = await this.request("POST", "/v1/sessions", this.start);
    this.note("started", started);
    let credentials = started.status === 200 ? started.body : null;
    if (started.status !== 200 && started.status !== 202) throw new Error(JSON.stringify(started));
    while (credentials === null) {
      const { status, body } = await this.request("GET", `/v1/sessions/${started.body.session_id}`);
      this.note("polled", { status, body });
      if (status !== 200 || body.status === "failed") throw new Error(JSON.stringify(body));
      if (body.status === "ready") {
        credentials = body.credentials;
        break;
      }
      const wait = Math.min(Math.max(body.retry_after_ms ?? 1000, POLL_MS.least), POLL_MS.most);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
    this.credentials = credentials;
    this.token = credentials.join_token;
    return credentials;
  }

  /** Open a signaling socket and join the room; what follows comes by itself. */
  join() {
    const socket = new WebSocket(`${this.credentials.signaling_url}?token=${encodeURIComponent(this.token)}`);
    this.socket = socket;
    socket.onopen = () => {
      this.note("socket-open");
      this.signal({ type: "join", room: this.credentials.room_id, peerId: this.peerId });
    };
    socket.onclose = ({ code }) => this.note("socket-closed", { code });
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      this.note("signal", { message });
      // One after the other, and no unhandled failure: a page that dies silently proves nothing.
      this.signals = this.signals
        .then(() => this.signalled(message))
        .catch((error) => this.note("page-failed", { error: String(error) }));
    };
  }

  signal(message) {
    this.socket.send(JSON.stringify(message));
  }

  async signalled(message) {
    if (message.type === "offer") await this.answer(message);
    if (message.type === "ice-candidate") await this.peers.at(-1).addIceCandidate(message.candidate);
  }

  async answer(offer) {
    const leg = ++this.leg;
    const to = { room: this.credentials.room_id, peerId: this.peerId, targetPeerId: offer.peerId };
    const peer = new RTCPeerConnection({ iceServers: this.credentials.ice_servers });
    this.peers.push(peer);
    peer.onconnectionstatechange = () => this.note("connection", { leg, state: peer.connectionState });
    peer.ondatachannel = ({ channel }) => this.adopt(channel, leg);
    peer.ontrack = ({ track, streams }) => this.listen(streams[0] ?? new MediaStream([track]), leg);
    peer.onicecandidate = ({ candidate }) => {
      if (!candidate || !candidate.candidate) return;
      this.note("candidate", { leg, candidate: candidate.candidate });
      this.signal({ type: "ice-candidate", ...to, candidate: candidate.toJSON() });
    };
    await peer.setRemoteDescription(offer.sdp);
    if (this.microphone) {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      for (const track of stream.getTracks()) peer.addTrack(track, stream);
    }
    await peer.setLocalDescription(await peer.createAnswer());
    const { type, sdp } = peer.localDescription;
    this.note("answer", { leg, sdp });
    this.signal({ type: "answer", ...to, sdp: { type, sdp } });
  }

  adopt(channel, leg) {
    const label = channel.label;
    channel.binaryType = "arraybuffer";
    this.channels[label] = channel;
    const opened = () => {
      this.note("channel-open", { leg, label, ordered: channel.ordered });
      if (label === "voice-control") this.sayHello(channel);
    };
    if (channel.readyState === "open") opened();
    else channel.onopen = opened;
    channel.onclose = () => this.note("channel-closed", { leg, label });
    channel.onmessage = ({ data }) => {
      if (typeof data !== "string") {
        this.note("binary", { leg, label, bytes: Array.from(new Uint8Array(data)) });
        return;
      }
      const message = JSON.parse(data);
      if (message.type === "session_reconnect_token") {
        this.token = message.token;
        this.repeatLostHello(channel, leg);
      }
      this.note("message", { leg, label, message });
    };
  }

  sayHello(channel) {
    if (this.hello === null) return;
    channel.send(JSON.stringify({ type: "session_hello", customer_context: this.hello }));
  }

  /**
   * Chromium calls a channel of the other side open a moment before it is: what is sent in `ondatachannel` or
   * `onopen` may be dropped without a word, on a busy machine in about one session of a hundred. Its own
   * count of sent messages tells. By the time the runner's first message is here, the channel is open indeed.
   */
  async repeatLostHello(channel, leg) {
    const stats = [...(await this.peers[leg - 1].getStats()).values()];
    const own = stats.find(({ type, dataChannelIdentifier: id }) => type === "data-channel" && id === channel.id);
    const lost = own.messagesSent === 0;
    if (lost) this.sayHello(channel);
    this.note("settled", { leg, repeated: lost && this.hello !== null });
  }

  /** Measure what arrives, 50 times a second; it goes on until the page does. */
  listen(stream, leg) {
    this.note("track", { leg });
    const speaker = document.getElementById("speaker");
    speaker.srcObject = stream; // Chromium decodes a remote track only where an element plays it
    const context = new AudioContext();
    const analyser = new AnalyserNode(context, { fftSize: 1024 });
    context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
      this.loudness.push([performance.now(), Math.sqrt(power)]);
    }, LOUDNESS_EVERY_MS);
  }

  send(message) {
    this.channels["voice-control"].send(JSON.stringify(message));
  }

  sendBinary(label, bytes) {
    this.channels[label].send(new Uint8Array(bytes));
  }
}

/** One request as any page would make it: the answer as it can be read, or how it failed. */
async function request(url, options) {
  try {
    const answer = await fetch(url, options);
    return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.json() };
  } catch (error) {
    return { failed: error.name };
  }
}

window.newCall = (options) => {
  window.call = new Call(options);
};
window.request = request;
