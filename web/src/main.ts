import './app.css';

import { mount } from 'svelte';

import { session } from './api/session.svelte';
import App from './App.svelte';
import { theme } from './ui/theme.svelte';

theme.begin();
void session.look();
mount(App, { target: document.getElementById('app')! });
