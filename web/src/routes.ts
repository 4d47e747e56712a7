/** Which page is at which address. graph serves the same page for all of them (graph/http/dashboard_files.py). */
import { createRouter } from 'sv-router';

import NotFound from './NotFound.svelte';
import Now from './now/Now.svelte';

export const { p, navigate, isActive, route } = createRouter({
  '/': Now,
  '/simulations/:id': () => import('./simulation/Simulation.svelte'),
  '/compare': () => import('./compare/Compare.svelte'),
  '/sweeps': () => import('./sweeps/Sweeps.svelte'),
  '/sweeps/:id': () => import('./sweeps/Sweep.svelte'),
  '/machines': () => import('./machines/Machines.svelte'),
  '/plan': () => import('./plan/Plan.svelte'),
  '/alerts': () => import('./alerts/Alerts.svelte'),
  '/projects': () => import('./projects/Projects.svelte'),
  '/tokens': () => import('./tokens/Tokens.svelte'),
  '/costs': () => import('./costs/Costs.svelte'),
  '/submit': () => import('./submit/Submit.svelte'),
  '*': NotFound,
});
