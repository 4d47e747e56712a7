/** Whether the window is so narrow that tables become lists of cards: the same width as in the styles. */
const query = matchMedia('(max-width: 860px)');

class Narrow {
  is = $state(query.matches);

  constructor() {
    query.addEventListener('change', (event) => (this.is = event.matches));
  }
}

export const narrow = new Narrow();
