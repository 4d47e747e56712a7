/** Node without a DOM, for modules compiled as for a browser: runes keep their effects. */
export default {
  name: 'client',
  viteEnvironment: 'client',
  setup: () => ({ teardown: () => undefined }),
};
