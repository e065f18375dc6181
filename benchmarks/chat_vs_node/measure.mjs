//   NODE_ENV=production node --expose-gc measure.mjs idiomatic | tuned | fastest <file with a frame in each line>
//
// Does rounds of work: each is asked for by a line of JSON on stdin and answered by one on stdout, the seconds
// that it took (or bytes for each conversation):
//
//   {"what": "push_error" | "frames" | "read", "conversations": 50, "count": 10000}
//   {"what": "memory", "conversations": 5000, "messages": 20}
//
// Which rounds there are is the driver's to say (../chat_vs_node.py).

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { decode, entityOf } from './frames.mjs';
import { fastest, filled, idiomatic, tuned } from './reducers.mjs';

if (process.env.NODE_ENV !== 'production') throw new Error('NODE_ENV must be production');

const createStore = { idiomatic, tuned, fastest }[process.argv[2]];
const TEXTS = readFileSync(process.argv[3], 'utf8').trimEnd().split('\n');
const MESSAGES = Array.from({ length: 64 }, (_, number) => `the server is not well: ${number}`);
const HISTORY = 20;
const stores = new Map();
let turn = 0;

const named = (conversations) => Array.from({ length: conversations }, (_, number) => `conversation-${number}`);

function storeOf(conversations) {
  if (!stores.has(conversations)) {
    const names = named(conversations);
    stores.set(conversations, { store: createStore(filled(names, HISTORY, 0)), names, next: 0 });
  }
  return stores.get(conversations);
}

function timed(count, step) {
  const started = process.hrtime.bigint();
  for (let number = 0; number < count; number++) step(number);
  return Number(process.hrtime.bigint() - started) / 1e9;
}

function pushError({ conversations, count }) {
  const kept = storeOf(conversations);
  const { store, names } = kept;
  let next = kept.next;
  const seconds = timed(count, () => {
    store.pushError(names[next++ % names.length], {
      kind: 'http_error',
      stage: 'send',
      status: 500,
      message: MESSAGES[turn++ % MESSAGES.length],
    });
  });
  kept.next = next;
  const newest = store.history(names[(next - 1) % names.length]).at(-1);
  if (newest.message !== MESSAGES[(turn - 1) % MESSAGES.length]) throw new Error('the error was not recorded');
  return seconds;
}

function frames({ conversations, count }) {
  const kept = storeOf(conversations);
  const { store, names } = kept;
  let next = kept.next;
  const seconds = timed(count, () => {
    const { data } = decode(TEXTS[turn++ % TEXTS.length]);
    store.upsertEntity(names[next++ % names.length], entityOf(data));
  });
  kept.next = next;
  const entity = store.entity(names[(next - 1) % names.length], 'message-1');
  const sent = JSON.parse(TEXTS[(turn - 1) % TEXTS.length]).event.data.entity;
  if (entity.props.content !== sent.props.content) throw new Error('the frame was not applied');
  return seconds;
}

function read({ count }) {
  return timed(count, (number) => decode(TEXTS[number % TEXTS.length]));
}

// Of the heap, for each conversation that is connected, idle, and has so many messages.
function memory({ conversations, messages }) {
  const names = named(conversations);
  globalThis.gc();
  const before = process.memoryUsage().heapUsed;
  const store = createStore(filled(names, 0, messages));
  globalThis.gc();
  const after = process.memoryUsage().heapUsed;
  if (!store.history(names[0])) throw new Error('there is no state');
  return (after - before) / conversations;
}

const MEASURES = { push_error: pushError, frames, read, memory };
for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  console.log(JSON.stringify(MEASURES[asked.what](asked)));
}
