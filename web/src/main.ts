import './app.css';

import { mount } from 'svelte';

import { connection } from './api/connection.svelte';
import { session } from './api/session.svelte';
import App from './App.svelte';
import { theme } from './ui/theme.svelte';

// The service was upgraded under an open page: what it would load next has another name now.
// While the server is away it is no upgrade, and a page with that message is better than none.
addEventListener('vite:preloadError', () => connection.live && location.reload());

theme.begin();
void session.look();
mount(App, { target: document.getElementById('app')! });
