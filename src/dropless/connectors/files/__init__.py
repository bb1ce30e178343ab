"""Files of records: CSV, NDJSON and Parquet, local or on S3-compatible storage."""
