"""The console: a web page over the functions of support, for people who are asked about a payment."""
