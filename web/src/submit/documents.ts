/** What the form asks of the server. */
import { graphql, type VariablesOf } from '../api/graphql';

export const CreateSimulation = graphql(`
  mutation Submit($input: CreateSimulationInput!) {
    createSimulation(input: $input) {
      simulation { id name }
      userErrors { code message field }
    }
  }
`);

export type CreateSimulationInput = VariablesOf<typeof CreateSimulation>['input'];

export const SimulationToRepeat = graphql(`
  query SimulationToRepeat($id: ID!) {
    simulation(id: $id) {
      id name entrypoint entrypointTemplate parameters environment workingDirectory tags machines priority attended attendedGraceSeconds preemptible metricsFrom metricsPatterns
      tensorboard systemMetricsSeconds
      package { digest name commit dirty }
      runtimeEnv
      notes
      after { condition simulation { id } }
      project { name }
      resources { cpus memoryGib gpus gpuModel labels machineName maxPricePerHour }
      limits { maxRuntimeSeconds maxCost maxSteps maxRetries retryOn }
      objective { metric mode }
      stopping {
        rules {
          metric mode minDelta patience gracePeriod stoppingThreshold divergenceThreshold checkFinite smoothing plateau
          rising aggressive dryRun
        }
      }
      metrics { name direction }
    }
  }
`);

export const ProjectNames = graphql(`
  query ProjectNames {
    projects(first: 200) { nodes { id name } }
  }
`);

export const MachinesCalled = graphql(`
  query MachinesCalled($name: String!, $after: String) {
    machines(first: 100, after: $after, nameContains: $name) {
      nodes { id name resources { gpuModel } }
      pageInfo { hasNextPage endCursor }
    }
  }
`);
