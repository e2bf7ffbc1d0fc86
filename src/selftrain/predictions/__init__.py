"""The prediction table: schema, writer, reader; running a model over shards; select."""
