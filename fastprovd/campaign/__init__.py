"""One fast-provisioning run, from the first advertisement to the proven end."""
