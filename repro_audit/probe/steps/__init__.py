"""What every trial observes: hooks on loaders, modules, backward and optimizers."""
