"""The report of a study: one `Report` made from run folders, and the formats written from it."""
