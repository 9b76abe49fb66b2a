"""What is measured on an encoder, while it trains and afterwards."""
