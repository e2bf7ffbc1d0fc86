"""FiftyOne: media, dataset, saved views, corrections."""
