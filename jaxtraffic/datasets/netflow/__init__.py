"""Flow records: UGR16, CIDDS and the tables of NetShare."""
