"""Who has done what with special rights: recorded before and after, so that what is changed or removed afterwards is found."""
