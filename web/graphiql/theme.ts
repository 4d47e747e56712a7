/** The dashboard's choice of colours (src/ui/theme.svelte.ts keeps it in this browser), as it is and as it changes. */
import { useEffect, useState } from 'react';

type Theme = 'light' | 'dark' | 'system';

const KEY = 'theme';

function kept(): Theme {
  const choice = localStorage.getItem(KEY);
  return choice === 'light' || choice === 'dark' ? choice : 'system';
}

export function useTheme(): Theme {
  const [theme, set] = useState(kept);
  useEffect(() => {
    const changed = (event: StorageEvent): void => {
      if (event.key === KEY || event.key === null) set(kept());
    };
    addEventListener('storage', changed);
    return () => removeEventListener('storage', changed);
  }, []);
  return theme;
}
