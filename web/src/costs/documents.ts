/** What the page of costs asks of the server. */
import { graphql, type FragmentOf, type ResultOf } from '../api/graphql';

const Sum = graphql(`
  fragment Sum on CostSum @_unmask { currency amount wasted saved attempts simulations }
`);

export type Sum = FragmentOf<typeof Sum>;

export const Costs = graphql(
  `
    query Costs($groupBy: [CostGroup!], $from: DateTime) {
      costs(groupBy: $groupBy, from: $from) {
        rows { project user machine name tag begin sum { ...Sum } }
        totals { ...Sum }
        hasPrices
      }
    }
  `,
  [Sum],
);

export type Row = ResultOf<typeof Costs>['costs']['rows'][number];

export const ChoicesOfBudget = graphql(`
  query ChoicesOfBudget { projects(first: 500) { nodes { id name } } overview { cost { currency } } }
`);

export const CreateBudget = graphql(`
  mutation CreateBudget($input: CreateBudgetInput!) {
    createBudget(input: $input) { budget { id } userErrors { code message field } }
  }
`);

export const UpdateBudget = graphql(`
  mutation UpdateBudget($input: UpdateBudgetInput!) {
    updateBudget(input: $input) { budget { id } userErrors { code message field } }
  }
`);

export const DeleteBudget = graphql(`
  mutation DeleteBudget($input: BudgetInput!) {
    deleteBudget(input: $input) { deletedId userErrors { message } }
  }
`);

export const Budgets = graphql(`
  query Budgets {
    budgets(first: 100) {
      nodes {
        id period amount currency
        project { name }
        account { spent percent perHour isUsedUp lastsUntil periodEnd }
      }
    }
  }
`);

export type Budget = ResultOf<typeof Budgets>['budgets']['nodes'][number];

export const Projects = graphql(`
  query ProjectShares {
    projects(first: 100) { nodes { id name weight gpuQuota } }
  }
`);

export type Project = ResultOf<typeof Projects>['projects']['nodes'][number];

export const UpdateProject = graphql(`
  mutation UpdateProject($input: UpdateProjectInput!) {
    updateProject(input: $input) { project { id } userErrors { code message field } }
  }
`);
