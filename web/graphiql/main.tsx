import 'graphiql/setup-workers/vite';
import 'graphiql/style.css';

import { createGraphiQLFetcher } from '@graphiql/toolkit';
import { GraphiQL } from 'graphiql';
import { createClient } from 'graphql-ws';
import { createRoot } from 'react-dom/client';

const wsClient = createClient({ url: `${location.origin.replace(/^http/, 'ws')}/graphql` });
const fetcher = createGraphiQLFetcher({ url: '/graphql', wsClient });

createRoot(document.getElementById('graphiql')!).render(<GraphiQL fetcher={fetcher} />);
