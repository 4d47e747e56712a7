/** What the page of machines asks of the server. */
import { graphql, type FragmentOf } from '../api/graphql';

export const Machine = graphql(`
  fragment MachineRow on Machine @_unmask {
    id name engine host declared state draining drainingSince drainDeadline heartbeatAt labels pricePerHour currency
    resources { cpus memoryGib gpus gpuModel }
    free { cpus memoryGib gpus }
    simulations { id name state cost { perHour } }
  }
`);

export type MachineRow = FragmentOf<typeof Machine>;

export const Machines = graphql(
  `
    query Machines($first: Int!, $after: String, $states: [MachineState!], $engine: String, $name: String, $direction: OrderDirection!) {
      machines(first: $first, after: $after, states: $states, engine: $engine, nameContains: $name, direction: $direction) {
        totalCount
        nodes { ...MachineRow }
        pageInfo { hasNextPage endCursor }
      }
    }
  `,
  [Machine],
);

export const MachineChanged = graphql(`
  subscription MachineMoved { machineChanged { id } }
`);

export const SimulationChanged = graphql(`
  subscription SimulationMoved { simulationChanged { id } }
`);

export const CreateMachine = graphql(`
  mutation AddMachine($input: CreateMachineInput!) {
    createMachine(input: $input) { machine { id name } notices userErrors { code message field } }
  }
`);

export const UpdateMachine = graphql(`
  mutation ChangeMachine($input: UpdateMachineInput!) {
    updateMachine(input: $input) { machine { id name } notices userErrors { code message field } }
  }
`);

export const DrainMachine = graphql(`
  mutation DrainMachine($input: DrainMachineInput!) {
    drainMachine(input: $input) { machine { id } userErrors { message field } }
  }
`);

export const ResumeMachine = graphql(`
  mutation ResumeMachine($input: MachineInput!) {
    resumeMachine(input: $input) { machine { id } userErrors { message } }
  }
`);

export const DeleteMachine = graphql(`
  mutation DeleteMachine($input: MachineInput!) {
    deleteMachine(input: $input) { deletedId userErrors { message } }
  }
`);
