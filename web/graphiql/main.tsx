/** GraphiQL on this service: offline, with its schema, examples that work, and the header editor for a token. */
import 'graphiql/setup-workers/vite';
import 'graphiql/style.css';
import './page.css';

import { GraphiQL } from 'graphiql';
import { createRoot } from 'react-dom/client';

import { type Example, examples } from './examples';
import { fetcher } from './fetcher';
import { ShareButton, sharedIn, type Shared } from './share';
import { withoutHeaders } from './storage';
import { useTheme } from './theme';

function Page({ shared, tabs }: { shared: Shared | null; tabs: Example[] }): React.JSX.Element {
  return (
    <main>
      <h1 className="unseen">GraphiQL: the API of Simulations</h1>
      <GraphiQL
        fetcher={fetcher}
        forcedTheme={useTheme()}
        defaultTabs={shared ? [shared, ...tabs] : tabs}
        defaultEditorToolsVisibility
        inputValueDeprecation
        schemaDescription
        storage={storage}
        {...(shared && { initialQuery: shared.query, initialVariables: shared.variables ?? '' })}
      >
        <GraphiQL.Logo>
          <a className="back" href="/">
            ← Simulations
          </a>
        </GraphiQL.Logo>
        <GraphiQL.Toolbar>
          {({ prettify, merge, copy }) => (
            <>
              {prettify}
              {merge}
              {copy}
              <ShareButton />
            </>
          )}
        </GraphiQL.Toolbar>
      </GraphiQL>
    </main>
  );
}

const storage = withoutHeaders(localStorage);
const shared = sharedIn(location.hash);
// It is in a tab from now on: loaded again, it must not come back in its old state.
if (shared) history.replaceState(null, '', '/graphql');
createRoot(document.getElementById('graphiql')!).render(<Page shared={shared} tabs={await examples()} />);
