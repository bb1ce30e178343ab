"""Apache Kafka topics as source and sink, through librdkafka."""
