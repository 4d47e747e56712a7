/** Where the values of several charts with the same x axis are read. */
export class Cursor {
  /** Null: nowhere, the newest values are shown. */
  x = $state<number | null>(null);
}
