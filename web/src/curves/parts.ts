/** Stored curves of a metric, or parts of them, downsampled by the server. */
import { graphql, type ResultOf } from '../api/graphql';

export const CURVES = graphql(`
  query Curves($ids: [ID!]!, $metric: String!, $fromStep: Step, $toStep: Step, $maxPoints: Int!, $timed: Boolean!) {
    curves(ids: $ids, metric: $metric, fromStep: $fromStep, toStep: $toStep, maxPoints: $maxPoints) {
      simulationId
      cursor
      curve {
        metric
        steps
        values
        elapsed @include(if: $timed)
        attempts
      }
    }
  }
`);

export type FetchedCurve = ResultOf<typeof CURVES>['curves'][number];
