class Narrow {
  is = $state(false);

  constructor(query: MediaQueryList) {
    this.is = query.matches;
    query.addEventListener('change', (event) => (this.is = event.matches));
  }
}

/** Whether the window is so narrow that tables become lists of cards: the same width as in the styles. */
export const narrow = new Narrow(matchMedia('(max-width: 860px)'));
/** Whether it is a telephone's, or a large one's enlarged. */
export const phone = new Narrow(matchMedia('(max-width: 480px)'));
