"""What is made of the project beside the package: its documentation, and the checks of a release."""
