"""Messages of the models that fast provisioning touches."""
