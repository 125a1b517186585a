"""HTTP, and only HTTP: the contract, its validation, the operations and the errors."""
