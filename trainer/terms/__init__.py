"""The terms of the loss: a file each. `registry` builds those that the settings ask for."""
