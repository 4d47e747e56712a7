/**
 * The curves of a simulation as they grow: the past first, then live, to the end. After a lost connection it goes on
 * behind the last event that came, so that there is neither a gap nor a duplicate.
 */
import { subscribe } from '../api/client';
import { graphql, type ResultOf } from '../api/graphql';
import { type ConvergenceEvent, Curves } from './series';

/** Above so many points of one metric the past comes thinned; everything that is new comes in full. */
export const FULL_UP_TO = 200_000;
const THINNED_TO = 100_000; // what the service allows at most

const CONVERGENCE = graphql(`
  subscription Convergence($id: ID!, $metrics: [String!], $after: String, $maxPoints: Int, $exact: Boolean!) {
    convergence(simulationId: $id, metrics: $metrics, after: $after, maxPoints: $maxPoints) {
      cursor
      attempt
      live
      state
      reason
      series {
        metric
        steps
        values
        notFinite @include(if: $exact)
        elapsed
        supersedesFrom
      }
    }
  }
`);

type Event = ResultOf<typeof CONVERGENCE>['convergence'];

export interface Wanted {
  id: string;
  /** Left out: all of them. */
  metrics?: readonly string[];
  thinned?: boolean;
  /** With what is not finite as it is, for a file. */
  exact?: boolean;
  /** Begin behind this cursor instead of with the first point. */
  after?: string | null;
}

export interface Watcher {
  /** Something came. */
  next: (event: Event) => void;
  /** The service refused it; it does not go on. */
  failed: (problem: Error) => void;
  /** It has come to its end. */
  complete?: () => void;
}

/** Where the points go. */
export interface Sink {
  add: (event: ConvergenceEvent) => void;
}

/** Fill `curves` from the first point on, until it ends or is stopped. Returns how to stop it. */
export function follow({ id, metrics, thinned = false, exact = false, after: begin = null }: Wanted, curves: Sink, watcher: Watcher): () => void {
  let after = begin;
  return subscribe(CONVERGENCE, {
    variables: () => ({
      id,
      metrics: metrics ? [...metrics] : null,
      after,
      maxPoints: thinned && after === null ? THINNED_TO : null,
      exact,
    }),
    next: ({ convergence }) => {
      after = convergence.cursor;
      curves.add(convergence);
      watcher.next(convergence);
    },
    failed: watcher.failed,
    ...(watcher.complete ? { complete: watcher.complete } : {}),
  });
}

/** Every point there is now, however many. progress: how many came so far. */
export function allPoints(id: string, progress: (points: number) => void): Promise<Curves> {
  return new Promise((resolve, reject) => {
    let points = 0;
    const curves = new Curves();
    const stop = follow(
      { id, exact: true },
      curves,
      {
        next: (event) => {
          for (const series of event.series) points += series.steps.length;
          progress(points);
          if (!event.live) return;
          stop();
          resolve(curves);
        },
        failed: reject,
        complete: () => resolve(curves),
      },
    );
  });
}
