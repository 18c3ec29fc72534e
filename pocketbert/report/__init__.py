"""Tables, plots, HTML, model card and budgets; reads files only."""
