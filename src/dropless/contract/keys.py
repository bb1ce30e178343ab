"""The keys of the Open Data Contract Standard 3.0 to 3.2, so that a slip of the pen is not taken for an extension.

Extensions have their place in `customProperties`. What is not about the shape or the quality of records is accepted
by its key and not looked into.
"""

from __future__ import annotations

TOP = (
    *("apiVersion", "kind", "id", "version", "name", "status", "tenant", "tags", "servers", "dataProduct"),
    *("description", "domain", "context", "schema", "support", "price", "team", "roles", "slaDefaultElement"),
    *("slaProperties", "authoritativeDefinitions", "customProperties", "contractCreatedTs"),
)

_ELEMENT = (
    *("id", "name", "physicalName", "physicalType", "logicalType", "businessName", "description", "deprecated"),
    *("synonyms", "authoritativeDefinitions", "tags", "customProperties", "relationships", "quality", "context"),
    "properties",
)

SCHEMA = (*_ELEMENT, "dataGranularityDescription")

PROPERTY = (
    *_ELEMENT,
    *("primaryKey", "primaryKeyPosition", "logicalTypeOptions", "required", "unique", "semanticType", "partitioned"),
    *("partitionKeyPosition", "classification", "encryptedName", "transformSourceObjects", "transformLogic"),
    *("transformDescription", "examples", "enum", "criticalDataElement", "items", "map"),
)

BOUNDS = {
    "mustBe": "must_be",
    "mustNotBe": "must_not_be",
    "mustBeGreaterThan": "must_be_greater_than",
    "mustBeGreaterOrEqualTo": "must_be_greater_or_equal_to",
    "mustBeLessThan": "must_be_less_than",
    "mustBeLessOrEqualTo": "must_be_less_or_equal_to",
    "mustBeBetween": "must_be_between",
    "mustNotBeBetween": "must_not_be_between",
}

QUALITY = (
    *("id", "name", "type", "description", "dimension", "method", "severity", "businessImpact", "unit", "tags"),
    *("schedule", "scheduler", "customProperties", "authoritativeDefinitions", "metric", "rule", "arguments"),
    *("query", "engine", "implementation", "validValues"),
    *BOUNDS,
)

METRICS = ("nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount")

RULES_3_0 = {
    "nullCheck": "nullValues",
    "duplicateCount": "duplicateValues",
    "validValues": "invalidValues",
    "countCheck": "rowCount",
}
"""Names that version 3.0 had under `rule`."""

LOGICAL_TYPES = (
    "string",
    "date",
    "timestamp",
    "time",
    "number",
    "integer",
    "object",
    "array",
    "boolean",
    "map",
    "vector",
)

_RANGE = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")

OPTIONS = {
    "string": ("minLength", "maxLength", "pattern", "format", "enum"),
    "integer": (*_RANGE, "multipleOf", "format", "enum"),
    "number": (*_RANGE, "multipleOf", "format", "enum"),
    "date": (*_RANGE, "format", "enum"),
    "timestamp": (*_RANGE, "format", "timezone", "defaultTimezone"),
    "time": (*_RANGE, "format", "timezone", "defaultTimezone"),
    "boolean": (),
    "object": ("required", "minProperties", "maxProperties"),
    "array": ("minItems", "maxItems", "uniqueItems"),
    "vector": ("dimensions", "elementType", "distanceMetric", "embeddingModel", "embeddingModelVersion", "normalized"),
}
"""What `logicalTypeOptions` may hold for a logical type. `enum` has its place beside it, but is often written there."""
