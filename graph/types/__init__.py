"""One module per noun of the schema: thin resolvers, inputs, enums."""
