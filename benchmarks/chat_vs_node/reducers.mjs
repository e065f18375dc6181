// What voicethere's chat core does to its state, as three kinds of Redux: the same fields, the same history of
// 20, the same normalization, the same window for duplicates, the same merging by version.
//
// `idiomatic` is Redux Toolkit as its documentation says (createSlice with prepare, configureStore); `tuned`
// is that with immer's own switches for speed; `fastest` is written by hand: plain functions, spread copies, the bare
// store of redux, no immer and no middleware.

import { configureStore, createSlice, freeze } from '@reduxjs/toolkit';
import { enableArrayMethods, setAutoFreeze } from 'immer';
import { legacy_createStore } from 'redux';

const MAX_HISTORY = 20;
const MAX_MESSAGE = 2048;
const MAX_LABEL = 200;
const DUPLICATE_WINDOW_MS = 5000;
const KINDS = new Set([
  'ws_error', 'ws_close', 'hydrate_error', 'http_error', 'sem_decode_error', 'runtime_error', 'unknown_error',
]);
const STAGES = new Set(['connect', 'hydrate', 'stream', 'send', 'disconnect', 'unknown']);
const UNPRINTABLE = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ud800-\udfff]/;
const EVERY_UNPRINTABLE = new RegExp(UNPRINTABLE, 'g');

const emptySession = {
  connectionStatus: 'idle',
  isStreaming: false,
  modelName: null,
  turnStats: null,
  inputTokens: 0,
  outputTokens: 0,
  cachedTokens: 0,
  streamStartTime: null,
  streamOutputTokens: 0,
  currentError: null,
  errorHistory: [],
};
const emptyTimeline = { byId: {}, order: [] };

const prefix = Math.random().toString(16).slice(2);
let numbers = 0;

function label(text) {
  const trimmed = text.trim();
  const clean = UNPRINTABLE.test(trimmed) ? trimmed.replace(EVERY_UNPRINTABLE, '\ufffd') : trimmed;
  return (clean.length > MAX_LABEL ? `${clean.slice(0, MAX_LABEL - 1)}…` : clean) || null;
}

function text(value, name) {
  if (value !== undefined && value !== null && typeof value !== 'string') throw new TypeError(`${name} must be a string`);
}

// Checks what a producer gave and fills in what it left out: a complete record.
function prepared(convId, given) {
  if (typeof convId !== 'string' || convId.length === 0 || convId.length > 1024) throw new TypeError('convId');
  if (!KINDS.has(given.kind)) throw new TypeError(`unknown error kind ${given.kind}`);
  if (!STAGES.has(given.stage)) throw new TypeError(`unknown error stage ${given.stage}`);
  text(given.message, 'message');
  text(given.source, 'source');
  text(given.code, 'code');
  const status = given.status ?? null;
  if (status !== null && !(Number.isInteger(status) && status >= 100 && status <= 999)) throw new TypeError('status');
  let message = (given.message ?? '').trim();
  if (!message) message = `${given.kind.replaceAll('_', ' ')} (${given.stage})`;
  else if (UNPRINTABLE.test(message)) message = message.replace(EVERY_UNPRINTABLE, '\ufffd');
  if (message.length > MAX_MESSAGE) message = `${message.slice(0, MAX_MESSAGE - 1)}…`;
  const recoverable =
    given.recoverable ??
    (given.kind === 'http_error' && status !== null
      ? status === 429 || status >= 500
      : given.kind !== 'unknown_error');
  return {
    convId,
    error: {
      id: given.id ?? `${prefix}-${(++numbers).toString(16)}`,
      kind: given.kind,
      stage: given.stage,
      message,
      recoverable,
      at: given.at ?? Date.now(),
      source: given.source == null ? null : label(given.source),
      code: given.code == null ? null : label(given.code),
      status,
      details: given.details ?? null,
    },
  };
}

function repeats(newest, record) {
  return (
    newest.message === record.message &&
    newest.kind === record.kind &&
    newest.code === record.code &&
    Math.abs(record.at - newest.at) <= DUPLICATE_WINDOW_MS
  );
}

function counted(record) {
  const before = record.details?.repeats;
  const count = Number.isInteger(before) && before >= 0 ? before + 1 : 1;
  return { ...record, details: { ...record.details, repeats: count } };
}

// ------------------------------------------------------------------ Redux Toolkit, as people write it

const chatSession = createSlice({
  name: 'chatSession',
  initialState: {},
  reducers: {
    pushError: {
      prepare: (convId, given) => ({ payload: prepared(convId, given) }),
      reducer(state, { payload: { convId, error } }) {
        const session = (state[convId] ??= { ...emptySession, errorHistory: [] });
        const history = session.errorHistory;
        const newest = history[history.length - 1];
        if (newest && repeats(newest, error)) {
          const record = counted(newest);
          history[history.length - 1] = record;
          session.currentError = record;
          return;
        }
        history.push(error);
        if (history.length > MAX_HISTORY) history.shift();
        session.currentError = error;
      },
    },
  },
});

const timeline = createSlice({
  name: 'timeline',
  initialState: {},
  reducers: {
    upsertEntity(state, { payload: { convId, entity } }) {
      const conversation = (state[convId] ??= { byId: {}, order: [] });
      const known = conversation.byId[entity.id];
      if (!known) {
        conversation.byId[entity.id] = entity;
        conversation.order.push(entity.id);
        return;
      }
      if (entity.version !== null) {
        if (known.version !== null && entity.version < known.version) return;
        known.kind = entity.kind;
        known.createdAt = entity.createdAt || known.createdAt;
        known.version = entity.version;
      } else if (known.version === null) {
        known.kind = entity.kind;
        known.createdAt = known.createdAt || entity.createdAt;
      }
      if (entity.updatedAt !== null) known.updatedAt = entity.updatedAt;
      Object.assign(known.props, entity.props);
    },
  },
});

export function idiomatic(preloadedState) {
  return toolkit(freeze(preloadedState, true)); // frozen, as immer leaves every state
}

// The same with what immer has for speed. Its switches are global: a process serves one form only.
export function tuned(preloadedState) {
  setAutoFreeze(false);
  enableArrayMethods();
  return toolkit(preloadedState);
}

function toolkit(preloadedState) {
  const store = configureStore({
    reducer: { chatSession: chatSession.reducer, timeline: timeline.reducer },
    preloadedState,
  });
  return {
    pushError: (convId, given) => store.dispatch(chatSession.actions.pushError(convId, given)),
    upsertEntity: (convId, entity) => store.dispatch(timeline.actions.upsertEntity({ convId, entity })),
    history: (convId) => store.getState().chatSession[convId].errorHistory,
    entity: (convId, id) => store.getState().timeline[convId].byId[id],
  };
}

// ------------------------------------------------------------------ the same by hand

function pushError(sessions, { convId, error }) {
  const known = sessions[convId] ?? emptySession;
  const before = known.errorHistory;
  const newest = before[before.length - 1];
  let record = error;
  let history;
  if (newest !== undefined && repeats(newest, error)) {
    record = counted(newest);
    history = before.slice(0, -1);
  } else {
    history = before.length < MAX_HISTORY ? before.slice() : before.slice(1 - MAX_HISTORY);
  }
  history.push(record);
  return { ...sessions, [convId]: { ...known, currentError: record, errorHistory: history } };
}

function upsertEntity(timelines, { convId, entity }) {
  const conversation = timelines[convId] ?? emptyTimeline;
  const known = conversation.byId[entity.id];
  if (known === undefined) {
    const changed = {
      byId: { ...conversation.byId, [entity.id]: entity },
      order: [...conversation.order, entity.id],
    };
    return { ...timelines, [convId]: changed };
  }
  let { kind, version } = entity;
  let createdAt = entity.createdAt || known.createdAt;
  if (version !== null) {
    if (known.version !== null && version < known.version) return timelines;
  } else if (known.version !== null) {
    ({ kind, createdAt, version } = known);
  } else {
    createdAt = known.createdAt || entity.createdAt;
  }
  const merged = {
    id: known.id,
    kind,
    createdAt,
    updatedAt: entity.updatedAt ?? known.updatedAt,
    version,
    props: { ...known.props, ...entity.props },
  };
  const changed = { byId: { ...conversation.byId, [known.id]: merged }, order: conversation.order };
  return { ...timelines, [convId]: changed };
}

function reducer(state, action) {
  switch (action.type) {
    case 'pushError':
      return { chatSession: pushError(state.chatSession, action.payload), timeline: state.timeline };
    case 'upsertEntity': {
      const next = upsertEntity(state.timeline, action.payload);
      return next === state.timeline ? state : { chatSession: state.chatSession, timeline: next };
    }
    default:
      return state;
  }
}

export function fastest(preloadedState) {
  const store = legacy_createStore(reducer, preloadedState);
  return {
    pushError: (convId, given) => store.dispatch({ type: 'pushError', payload: prepared(convId, given) }),
    upsertEntity: (convId, entity) => store.dispatch({ type: 'upsertEntity', payload: { convId, entity } }),
    history: (convId) => store.getState().chatSession[convId].errorHistory,
    entity: (convId, id) => store.getState().timeline[convId].byId[id],
  };
}

// A state of so many conversations, each with so many errors and messages.
export function filled(names, errors, messages) {
  const state = { chatSession: {}, timeline: {} };
  for (const name of names) {
    let conversation = emptyTimeline;
    for (let number = 0; number < messages; number++) {
      const props = { role: 'assistant', content: `message ${number} of ${name}`, streaming: false };
      const at = 1_700_000_000_000 + number;
      const entity = { id: `message-${number}`, kind: 'message', createdAt: at, updatedAt: at, version: number + 1, props };
      conversation = upsertEntity({ [name]: conversation }, { convId: name, entity })[name];
    }
    state.chatSession[name] = pushAll(name, errors);
    state.timeline[name] = conversation;
  }
  return state;
}

function pushAll(name, errors) {
  let sessions = { [name]: { ...emptySession } };
  for (let number = 0; number < errors; number++) {
    const given = { kind: 'ws_error', stage: 'stream', message: `error ${number}` };
    sessions = pushError(sessions, prepared(name, given));
  }
  return sessions[name];
}
