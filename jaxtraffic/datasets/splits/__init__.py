"""Sides of a study: stratified folds, periods of time, known and unknown classes, classes of few-shot tasks."""
