/** What the page of a simulation asks, and what it does. */
import { graphql, type ResultOf } from '../api/graphql';
import type { Span } from '../curves/xAxis';

const DECISION = graphql(`
  fragment Decision on StopEvidence @_unmask {
    reason
    rule
    metric
    step
    sentence
  }
`);

const FIELDS = graphql(
  `
    fragment Fields on Simulation @_unmask {
      id
      name
      state
      reason
      reasonDetail
      waiting {
        reason
        detail
        until
      }
      queuePosition
      ahead {
        detail
        simulation {
          id
          name
        }
      }
      estimatedStart
      checkpoint {
        at
        machineName
      }
      stopWanted {
        reason
        by
        at
        detail
      }
      entrypoint
      entrypointTemplate
      parameters
      environment
      workingDirectory
      package {
        digest
        sizeBytes
        name
        commit
        dirty
        url
      }
      runtimeEnv
      tags
      notes
      paused
      after {
        condition
        simulation {
          id
          name
          state
        }
      }
      dependents {
        condition
        simulation {
          id
          name
          state
        }
      }
      resources {
        cpus
        memoryGib
        gpus
        gpuModel
        labels
        machineName
        maxPricePerHour
      }
      machines
      priority
      objective {
        metric
        mode
        value
        bestValue
        bestStep
      }
      stopping {
        rules {
          metric
          mode
          minDelta
          patience
          gracePeriod
          stoppingThreshold
          divergenceThreshold
          checkFinite
          smoothing
          plateau
          rising
          aggressive
          dryRun
        }
        evidence {
          ...Decision
        }
        wouldHaveStopped {
          ...Decision
        }
        notices
      }
      limits {
        maxRuntimeSeconds
        maxCost
        maxSteps
        maxRetries
        retryOn
      }
      attended
      attendedGraceSeconds
      preemptible
      createdBy
      createdAt
      startedAt
      finishedAt
      project {
        id
        name
      }
      attempts {
        id
        number
        machineName
        gpuIndices
        pricePerHour
        share
        currency
        members {
          rank
          machineName
          gpuIndices
          pricePerHour
          share
          exitCode
          signal
        }
        assignedAt
        startedAt
        endedAt
        reason
        reasonDetail
        exitCode
        signal
      }
      events {
        id
        at
        kind
        actor
        detail
      }
      cost {
        amount
        currency
        perHour
      }
      metrics {
        name
        direction
        count
      }
      notices {
        kind
        count
        example
        advice
      }
      retryOf {
        id
        name
      }
    }
  `,
  [DECISION],
);

export const SIMULATION = graphql(
  `
    query Simulation($id: ID!) {
      simulation(id: $id) {
        ...Fields
      }
    }
  `,
  [FIELDS],
);

export const FILES = graphql(`
  query Files($id: ID!, $first: Int!, $after: String) {
    simulation(id: $id) {
      files(first: $first, after: $after) {
        totalCount
        totalBytes
        pageInfo { hasNextPage endCursor }
        nodes { kind rank path sizeBytes modifiedAt link url }
      }
    }
  }
`);

export type StoredFile = NonNullable<ResultOf<typeof FILES>['simulation']>['files']['nodes'][number];

export const SOURCE = graphql(`
  query Source($id: ID!) {
    simulation(id: $id) {
      source {
        commit
        dirty
        remote
        host
        python
        packages
      }
    }
  }
`);

/** Asked for on its own, when its panel is opened. */
export const SYSTEM_METRICS = graphql(`
  query SystemMetrics($id: ID!) {
    simulation(id: $id) {
      metrics(system: true) {
        name
      }
    }
  }
`);

export const CHANGED = graphql(
  `
    subscription SimulationChanged($id: ID!) {
      simulationChanged(id: $id) {
        ...Fields
      }
    }
  `,
  [FIELDS],
);

/** Asked for on its own, now and then: it is computed from the whole curve. */
export const FORECAST = graphql(`
  query Forecast($id: ID!) {
    simulation(id: $id) {
      forecast {
        metric
        step
        sentence
        end {
          band {
            steps
            values
            lows
            highs
          }
        }
      }
    }
  }
`);

export const PAUSE = graphql(`
  mutation Pause($id: ID!) {
    pauseSimulation(input: { id: $id }) {
      userErrors {
        message
      }
    }
  }
`);

export const RESUME = graphql(`
  mutation Resume($id: ID!) {
    resumeSimulation(input: { id: $id }) {
      userErrors {
        message
      }
    }
  }
`);

export const CANCEL = graphql(`
  mutation Cancel($id: ID!) {
    cancelSimulation(input: { id: $id }) {
      userErrors {
        message
      }
    }
  }
`);

export const RETRY = graphql(`
  mutation Retry($id: ID!) {
    retrySimulation(input: { id: $id }) {
      simulation {
        id
      }
      userErrors {
        message
        field
      }
    }
  }
`);

export const FORK = graphql(`
  mutation Fork($input: ForkSimulationInput!) {
    forkSimulation(input: $input) {
      simulation {
        id
      }
      userErrors {
        message
        field
      }
    }
  }
`);

export const DELETE = graphql(`
  mutation Delete($id: ID!) {
    deleteSimulation(input: { id: $id }) {
      userErrors {
        message
      }
    }
  }
`);

export type Decision = NonNullable<Simulation['stopping']['evidence']>;
export type Forecast = NonNullable<NonNullable<ResultOf<typeof FORECAST>['simulation']>['forecast']>;
export type Source = NonNullable<NonNullable<ResultOf<typeof SOURCE>['simulation']>['source']>;
export type Simulation = NonNullable<ResultOf<typeof SIMULATION>['simulation']>;

interface Billed {
  number: number;
  assignedAt: string;
  startedAt: string | null;
  endedAt: string | null;
  pricePerHour: string;
  share: string;
}

/** What time and money on a chart are reckoned from. */
export function spansOf(attempts: readonly Billed[]): Span[] {
  return attempts.map(({ number, assignedAt, startedAt, endedAt, pricePerHour, share }) => ({
    number,
    assignedAt: Date.parse(assignedAt),
    startedAt: startedAt === null ? null : Date.parse(startedAt),
    endedAt: endedAt === null ? null : Date.parse(endedAt),
    perHour: Number(pricePerHour) * Number(share),
  }));
}
