/** What is wrong with what was typed, each at its field: found by the page itself, or by the server (`userErrors`). */
export interface Fault {
  /** The way to the argument from the input's root, with dots: `resources.cpus`. Empty: about the whole. */
  path: string;
  message: string;
}

export interface UserError {
  message: string;
  field: readonly string[] | null;
}

/** Validation errors of the server. Their sentences begin with the path, which the field's label shows already. */
export function faultsOf(errors: readonly UserError[]): Fault[] {
  return errors.map(({ message, field }) => {
    const path = field?.join('.') ?? '';
    const said = path && message.startsWith(`${path}: `) ? message.slice(path.length + 2) : message;
    return { path, message: said.charAt(0).toUpperCase() + said.slice(1) };
  });
}

/** Whether something is about a field: `labels.rack` is about `labels`. */
export function isAt(fault: Fault, path: string): boolean {
  return fault.path === path || fault.path.startsWith(`${path}.`);
}

/** What stands at a field. Where it is about a part of it, the part is named. */
export function saidAt(faults: readonly Fault[], path: string): string {
  return faults
    .filter((fault) => isAt(fault, path))
    .map(({ path: whole, message }) => (whole === path ? message : `${whole.slice(path.length + 1)}: ${message}`))
    .join(' ');
}

export function idOf(path: string): string {
  return `field-${path.replaceAll('.', '-')}`;
}
