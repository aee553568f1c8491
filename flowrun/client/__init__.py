"""What any process may do: dispatch, wait, look."""
