/** Short words about what was just done, or could not be. */
export interface Toast {
  id: number;
  text: string;
  bad: boolean;
}

const SHOWN_MS = 8_000;

class Toasts {
  list = $state<Toast[]>([]);
  #next = 1;

  say(text: string, bad = false): void {
    if (this.list.some((each) => each.text === text)) return;
    const toast = { id: this.#next++, text, bad };
    this.list.push(toast);
    setTimeout(() => this.close(toast.id), SHOWN_MS);
  }

  complain(problem: unknown): void {
    this.say(problem instanceof Error ? problem.message : String(problem), true);
  }

  close(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id);
  }
}

export const toasts = new Toasts();
