/** Machines by name: people know names, the API's requirement takes an id. */
import { request } from '../api/client';
import type { ResultOf } from '../api/graphql';
import { MachinesCalled } from './documents';

export interface Suggested {
  id: string;
  name: string;
  gpuModel: string | null;
}

/** Some whose names contain this text, to choose from. */
export async function machinesLike(name: string): Promise<Suggested[]> {
  const { machines } = await request(MachinesCalled, { name });
  return machines.nodes.map((machine) => ({ id: machine.id, name: machine.name, gpuModel: machine.resources.gpuModel }));
}

/** The id of the machine with exactly this name; null if there is none. */
export async function machineCalled(name: string): Promise<string | null> {
  let after: string | null = null;
  do {
    const { machines }: ResultOf<typeof MachinesCalled> = await request(MachinesCalled, { name, after });
    const found = machines.nodes.find((machine) => machine.name === name);
    if (found) return found.id;
    after = machines.pageInfo.hasNextPage ? machines.pageInfo.endCursor : null;
  } while (after !== null);
  return null;
}
