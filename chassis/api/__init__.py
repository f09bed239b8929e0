"""What every resource API does the same way: pages, filters, orders, masks, ids, etags and field rules."""
