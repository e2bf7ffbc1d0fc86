"""FiftyOne: media, dataset, saved views."""
