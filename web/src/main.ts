import './app.css';

import { mount } from 'svelte';

import { session } from './api/session.svelte';
import App from './App.svelte';
import { theme } from './ui/theme.svelte';

// The service was upgraded under an open page: what it would load next has another name now.
addEventListener('vite:preloadError', () => location.reload());

theme.begin();
void session.look();
mount(App, { target: document.getElementById('app')! });
