"""What people look at: pictures of views and of how training went."""
