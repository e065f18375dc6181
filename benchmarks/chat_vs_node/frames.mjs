// SEM frames as Node reads them: JSON.parse, zod for the shape, then an entity for the reducers.

import { z } from 'zod';

const wholeNumber = z.union([z.int(), z.string().regex(/^-?[0-9]{1,19}$/)]);
const entity = z.object({
  id: z.string().min(1),
  kind: z.string().min(1),
  createdAtMs: wholeNumber.default(0),
  updatedAtMs: wholeNumber.default(0),
  props: z.record(z.string(), z.unknown()).default({}),
  meta: z.record(z.string(), z.string()).default({}),
});
const upsert = z.object({ convId: z.string().default(''), version: wholeNumber.default(0), entity });
const frame = z.object({
  sem: z.literal(true),
  event: z.object({
    type: z.string(),
    id: z.string(),
    data: z.unknown(),
    metadata: z.record(z.string(), z.unknown()).optional().catch(undefined),
    seq: z.number().optional(),
    stream_id: z.string().optional(),
  }),
});

// The event of a frame, its data checked; only `timeline.upsert` is needed here.
export function decode(text) {
  const { event } = frame.parse(JSON.parse(text));
  if (event.type !== 'timeline.upsert') throw new Error(`not measured: ${event.type}`);
  return { ...event, data: upsert.parse(event.data) };
}

export function entityOf({ version, entity: given }) {
  return {
    id: given.id,
    kind: given.kind,
    createdAt: Math.max(0, Number(given.createdAtMs)),
    updatedAt: Math.max(0, Number(given.updatedAtMs)) || null,
    version: Number(version) > 0 ? Number(version) : null,
    props: given.props,
  };
}
