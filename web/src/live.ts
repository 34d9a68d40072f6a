// The hub's stream of live snapshots.

export interface NodeView {
  node: string; meter: string; channel: number;
  energy_uj: number | null; unmeasured_us: number | null; power_uw: number | null; voltage_uv: number | null; current_ua: number | null;
  at: string | null; estimated: boolean; saturated: number; sensor_errors: number; samples: number;
  attribution?: {
    base_uj: number; unattributed_uj: number; invariant_uj: number;
    functions: { namespace: string; function: string; prior_dominated: boolean; collinear: boolean; watts_per_core: number }[];
    model: {
      base_w: number; base_stddev_w: number; core_w: number; core_stddev_w: number; lag_us: number; lag_peak: number; changes: number;
      rejected: Record<string, number> | null;
    };
  };
}

export interface MeterView {
  meter: string; kind: string; identity: string; firmware: string; up: boolean; error?: string; last_success: string | null;
  lost: number; recovered: number; restarts: number; errors: Record<string, number> | null;
  clock: { offset_us: number; bound_us: number; drift_ppm: number } | null;
}

export interface Snapshot { time: string; nodes: NodeView[]; meters: MeterView[] }

export interface Agent {
  name: string; url: string;
  up: boolean;
  /** Why it is not up. */
  error: string;
  /** Age of the snapshot in seconds; null where there is none. */
  age: number | null;
  snapshot: Snapshot | null;
}

export interface Live { time: number; agents: Agent[] }

interface RawAgent {
  target?: string; name?: string; url?: string; up?: boolean; error?: string; age_ms?: number | null; age_s?: number | null;
  snapshot?: Snapshot | null;
}

/** An event's data. Agents are called targets or agents; one that never answered has no snapshot. */
export function parseLive(data: string): Live {
  const event = JSON.parse(data) as { time: string; targets?: RawAgent[] | null; agents?: RawAgent[] | null };
  const agents = (event.targets ?? event.agents ?? []).map((a): Agent => ({
    name: a.target ?? a.name ?? a.url ?? '', url: a.url ?? '', error: a.error ?? '',
    up: a.up ?? (!a.error && a.snapshot != null),
    age: a.age_s ?? (a.age_ms == null ? null : a.age_ms / 1000),
    snapshot: a.snapshot ?? null,
  }));
  return { time: Date.parse(event.time) / 1000, agents };
}

/** A node as its agent tells it. */
export interface LiveNode { agent: Agent; view: NodeView; meter: MeterView | undefined }

/** All nodes of all agents, by name. */
export function nodesOf(live: Live | null): LiveNode[] {
  const nodes = (live?.agents ?? []).flatMap((agent) =>
    (agent.snapshot?.nodes ?? []).map((view) => ({ agent, view, meter: agent.snapshot?.meters.find((m) => m.meter === view.meter) })));
  return nodes.sort((a, b) => a.view.node.localeCompare(b.view.node));
}

/** Opens the stream; a stream that ended is opened anew after two seconds. Returns what closes it. */
export function listen(event: (live: Live) => void, broken: () => void): () => void {
  let source: EventSource;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const open = () => {
    source = new EventSource('api/v1/live');
    source.onmessage = (m: MessageEvent<string>) => {
      try {
        event(parseLive(m.data));
      } catch {
        broken();
      }
    };
    // A browser comes again by itself after a lost connection, but not after an answer such as 503.
    source.onerror = () => {
      broken();
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, 2000);
    };
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
