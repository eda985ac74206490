"""A model as a function of its parameters: batches, loss, batch norm, precision, execution plan."""
