// What all pages share: the route, the time window, the live stream, and how data are fetched.
import { createContext } from 'preact';
import { useContext, useEffect, useRef, useState } from 'preact/hooks';
import type { Live } from './live';
import { Unreachable } from './prometheus';
import type { Window } from './promql';
import type { Route } from './route';

export interface App {
  route: Route;
  /** Changes parts of the route. Typing into a filter replaces the entry of the browser's history instead of adding one. */
  go: (change: Partial<Route>, replace?: boolean) => void;
  window: Window;
  dark: boolean;
  /** Says whether the hub answered. */
  reached: (yes: boolean) => void;
}

export const Context = createContext<App | null>(null);

/** The live stream changes every second, all else seldom: who does not show it must not be drawn anew by it. */
export const LiveContext = createContext<Live | null>(null);
/** The newest event of the live stream; null before the first. */
export const useLive = (): Live | null => useContext(LiveContext);

export function useApp(): App {
  const app = useContext(Context);
  if (!app) throw new Error('no App above');
  return app;
}

export interface Loaded<T> { data: T | null; error: Error | null; loading: boolean }

/**
 * Fetches when the key changes, and again a while after a failure. What was there stays while the next is on its way;
 * an answer that is no longer asked for is dropped.
 */
export function useData<T>(key: string, load: (signal: AbortSignal) => Promise<T>): Loaded<T> {
  const { reached } = useApp();
  const [state, set] = useState<Loaded<T>>({ data: null, error: null, loading: true });
  const latest = useRef(load);
  latest.current = load;
  const [attempt, again] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    set((s) => ({ ...s, loading: true }));
    latest.current(abort.signal).then(
      (data) => {
        if (abort.signal.aborted) return;
        reached(true);
        set({ data, error: null, loading: false });
      },
      (e: unknown) => {
        if (abort.signal.aborted) return;
        const error = e instanceof Error ? e : new Error(String(e));
        const away = error instanceof Unreachable;
        reached(!away);
        timer = setTimeout(() => again((n) => n + 1), away ? 2000 : 5000);
        set((s) => ({ data: s.data, error, loading: false }));
      });
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [key, attempt]);
  return state;
}

/** Whether a media query holds, now and whenever that changes. */
export function useMedia(media: string): boolean {
  const [matches, set] = useState(() => matchMedia(media).matches);
  useEffect(() => {
    const list = matchMedia(media);
    const changed = () => set(list.matches);
    list.addEventListener('change', changed);
    return () => list.removeEventListener('change', changed);
  }, [media]);
  return matches;
}
