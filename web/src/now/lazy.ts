/** What is loaded when it is first used. Here, for the router takes a page with `import` in it for one that is lazy. */
export const selectedBar = () => import('./Selected.svelte');
export const columnsDialog = () => import('./Columns.svelte');
