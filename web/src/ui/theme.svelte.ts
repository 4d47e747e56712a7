/** Light, dark, or as the reader's system has it; kept in this browser. */
export type Theme = 'system' | 'light' | 'dark';

const KEY = 'theme';
const THEMES: readonly Theme[] = ['system', 'light', 'dark'];
const system = matchMedia('(prefers-color-scheme: dark)');

class ThemeChoice {
  choice = $state<Theme>('system');
  #systemIsDark = $state(system.matches);

  /** Whether the page is dark now: charts, which are painted and not styled, ask for it. */
  get dark(): boolean {
    return this.choice === 'dark' || (this.choice === 'system' && this.#systemIsDark);
  }

  begin(): void {
    system.addEventListener('change', (event) => (this.#systemIsDark = event.matches));
    const kept = localStorage.getItem(KEY) as Theme | null;
    this.choose(kept !== null && THEMES.includes(kept) ? kept : 'system');
  }

  choose(choice: Theme): void {
    this.choice = choice;
    document.documentElement.dataset['theme'] = choice;
    localStorage.setItem(KEY, choice);
  }

  next(): void {
    this.choose(THEMES[(THEMES.indexOf(this.choice) + 1) % THEMES.length]!);
  }
}

export const theme = new ThemeChoice();
