"""What organisations are told about what they have spent: usage, receipts, invoices."""
